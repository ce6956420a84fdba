"""What does a process of a batch do? Tasks as lines of JSON, until nobody asks.

It is started by ``python -m popk.batches.worker``.
"""

import json
import os
import queue
import sys
import threading

from popk.batches.jobs import Job
from popk.batches.work import Task, perform


def main() -> None:
    """Answer each line that is read with a line of what came of it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a model prints is no answer
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    while True:
        job, *rest = json.loads(asked.get())
        answers.write(json.dumps(perform(Task(Job(*job), *rest)), default=str) + "\n")
        answers.flush()


def _listen(asked: queue.SimpleQueue) -> None:
    """Hand on what is asked; leave at once when there is nobody left to answer."""
    for line in sys.stdin:
        asked.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
