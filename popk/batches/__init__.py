"""How are many fits run, each once? Jobs from a file, dealt out to processes or to a Dask scheduler."""
