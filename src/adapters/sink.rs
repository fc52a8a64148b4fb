//! Where plans are carried out: the trait [`TrafficSink`] and its implementations.
