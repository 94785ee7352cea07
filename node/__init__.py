"""The process on a box: every effect lives here, on trio."""
