"""Callbacks for other libraries' training loops: each joins a job and steps an outer method.

Each file needs its library (`pip install 'atoll[trainers]'`); docs/trainers.md has the lines.
"""
