"""Where instances register and are looked up: the Protocol, its memory twin, and the folder of locks that is the default."""
