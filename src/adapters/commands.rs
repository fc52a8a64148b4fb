//! Commands that a caller has an agent run: the request's form, its signature, the agent's challenges and its queue.

mod challenges;
pub mod queue;
pub mod request;
pub mod signing;

pub use queue::CommandQueue;
