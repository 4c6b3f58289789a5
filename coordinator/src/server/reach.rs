//! The address of this machine from which another one is reached. The kernel chooses the route; nothing is sent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::{UdpSocket, lookup_host};

/// An address for documentation (RFC 5737): the route to it is the default route.
const ELSEWHERE: &str = "192.0.2.1:9";

/// The address of this machine from which that host and port are reached.
///
/// # Errors
/// The host has no address, or there is no route to it.
pub(crate) async fn local_address(remote: &str) -> io::Result<IpAddr> {
    let mut last = io::Error::other("the name has no address");
    for remote in lookup_host(remote).await? {
        let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(remote).await.and_then(|()| socket.local_addr()) {
            Ok(local) => return Ok(local.ip()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The address at which others reach a listener: the one of the default route if it listens on every address.
pub(super) async fn reachable(listening: SocketAddr) -> SocketAddr {
    if !listening.ip().is_unspecified() {
        return listening;
    }
    // A machine without a network is reached only from itself.
    let ip = local_address(ELSEWHERE).await.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_for<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn this_machine_is_reached_from_loopback() {
        assert!(wait_for(local_address("127.0.0.1:4000")).unwrap().is_loopback());
    }

    #[test]
    fn only_who_listens_everywhere_is_told_otherwise() {
        let here: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(wait_for(reachable(here)), here);
        let everywhere = wait_for(reachable("0.0.0.0:4000".parse().unwrap()));
        assert!(!everywhere.ip().is_unspecified() && everywhere.port() == 4000);
    }
}
