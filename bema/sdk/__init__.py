"""Author and run: a class, what it says about itself, and the one way it is started."""
