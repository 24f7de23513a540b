"""Backups of the database and the objects, encrypted, in a folder; and their restoration.

`creating.py` makes one, `restoring.py` reads one. `folder.py` has the layout of the folder, `sealing.py` the
encryption.
"""
