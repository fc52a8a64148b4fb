//! Addresses and ports of processes that a test starts, which nobody else takes meanwhile.
#![allow(dead_code, unreachable_pub, reason = "several test binaries share it, none uses all")]

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// A loopback address of this test process, by the last byte.
pub fn own_address(host: u8) -> Ipv4Addr {
    let process = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, process[2] | 0x80, process[3], host)
}

/// A free port of `ip`, below the ports that the kernel gives to outgoing connections, and never the same one twice:
/// nothing holds a port until its process has started.
pub fn free(ip: Ipv4Addr) -> SocketAddrV4 {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    loop {
        let address = SocketAddrV4::new(ip, NEXT.fetch_add(1, Ordering::Relaxed));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
