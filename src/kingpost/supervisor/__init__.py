"""`kingpost up`: holds the listening sockets, starts and watches gateway and control."""
