"""How fast this machine trains, and how far from its limit."""
