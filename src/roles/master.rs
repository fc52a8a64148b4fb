//! The master: keeps one ordered ensemble, runs the callback on change, and lets the gate decide.
//!
//! Every master takes keepalives. The store elects one leader: it keeps the ensemble, persists its changes, runs the
//! callback and the gate. The others forward keepalives to it. One term of leadership is a set of tasks that end
//! before another master may lead.
//!
//! | file | step |
//! |---|---|
//! | `instance` | starts and stops one master |
//! | `context` | what its tasks share |
//! | `ingest` | takes keepalives: into the ensemble, forwarded, or kept until there is a leader |
//! | `handler` | the keepalive port of a master, an agent, or both |
//! | `election` | begins and ends terms |
//! | `term` | one term: restore what is stored, then run the tasks below |
//! | `commit` | writes under the term, with retries |
//! | `persistence` | persists changes of the ensemble, expires silent pods |
//! | `callback_loop` | digest, damper, callback, state |
//! | `breakers` | the policy's own detectors |
//! | `reader` | the ensemble as parsed rows, for the gate, the callback, the detectors and the pages |
//! | `live` | the ensemble for others in this process |
//! | `hosted` | a master inside another role |
//! | `gate` | policy, verdicts and ensemble → gate |
//! | `pages` | the admin pages |

mod breakers;
mod callback_loop;
mod commit;
mod context;
mod election;
mod gate;
mod handler;
mod hosted;
mod ingest;
mod instance;
mod live;
mod metrics;
mod pages;
mod periodic;
mod persistence;
mod reader;
mod term;

pub use self::{handler::PortHandler, hosted::HostedMaster, instance::Master, live::LiveEnsemble};
