"""From text and options to what the talker is given, and when speech has to stop."""
