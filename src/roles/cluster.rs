//! Several replicas: the view of the members, and who works on what.

mod page;

pub(crate) use self::page::{cluster_page, leadership};
