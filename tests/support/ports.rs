//! Addresses and ports of processes that a test starts, which nobody else takes meanwhile.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

/// A loopback address of this test process, by the last byte.
pub fn own_address(host: u8) -> Ipv4Addr {
    let process = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, process[2] | 0x80, process[3], host)
}

/// A free port of `ip`, below the ports that the kernel gives to outgoing connections, and never the same one twice:
/// nothing holds a port until its process has started.
pub fn free(ip: Ipv4Addr) -> SocketAddrV4 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time begin 200 ports apart.
    let first = std::process::id().wrapping_mul(200);
    loop {
        let offset = first.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddrV4::new(ip, 10_000 + offset as u16);
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
