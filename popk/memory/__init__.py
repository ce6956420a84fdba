"""What was believed of a patient, when, and why? A store whose entries are added and never changed."""
