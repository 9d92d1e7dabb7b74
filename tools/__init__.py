"""What dev.py is made of beside itself: standard library only, like it."""
