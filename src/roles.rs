//! What a process can be: wiring that reads as named steps.
