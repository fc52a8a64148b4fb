//! The `KubervisorService` manifest: its raw form, its checks, and the validated policy that the core works with.
