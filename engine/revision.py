"""The revision of the maths, alone in its file: to compare it nothing slow is imported."""

REVISION = 2  # raised when the maths changes, so that no result of the old one is taken over
