//! Tests of tunnels: frames by property, links face to face, and both ends in a network that fails.

mod face_to_face;
mod flows;
mod frames;
mod hashing;
mod moving;
mod offers;
mod resuming;
mod simulation;
