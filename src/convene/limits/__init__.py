"""Who may ask how much: values and integer arithmetic over a time that is handed in. No clock, no store, no words."""
