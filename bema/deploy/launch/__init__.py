"""Starting, watching and stopping one instance."""
