"""`mmdiff evaluate`: how good the pictures, the sounds and their agreement are, with intervals and a protocol."""
