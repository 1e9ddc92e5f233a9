//! Where the gate itself listens: nothing that it sends may go there.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, PoisonError, RwLock},
};

/// The gate's own listeners, shared by all that calls and all that listens.
#[derive(Clone, Debug, Default)]
pub struct Listeners(Arc<RwLock<Vec<SocketAddr>>>);

/// A listener that is on the list until this is dropped.
#[derive(Debug)]
#[must_use = "the listener is on the list until this is dropped"]
pub struct Registered {
    listeners: Listeners,
    address: SocketAddr,
}

impl Listeners {
    /// Puts a bound address on the list, before anything is served on it.
    pub fn register(&self, address: SocketAddr) -> Registered {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(address);
        Registered { listeners: self.clone(), address }
    }

    /// Whether the gate would call itself at this address and port.
    pub(super) fn is_own(&self, address: SocketAddr) -> bool {
        let listeners = self.0.read().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().any(|listener| hears(*listener, address))
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut listeners = self.listeners.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = listeners.iter().position(|listener| *listener == self.address) {
            listeners.swap_remove(at);
        }
    }
}

/// Whether a connection to `address` ends at `listener`.
fn hears(listener: SocketAddr, address: SocketAddr) -> bool {
    let (own, called) = (listener.ip().to_canonical(), address.ip().to_canonical());
    listener.port() == address.port() && (own == called || (own.is_unspecified() && is_here(called)))
}

/// Whether an address is one of this machine: then, and only then, a socket can
/// have it. Nothing is remembered, since addresses come and go.
fn is_here(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        // What is not known for sure counts as ours.
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_own(listener: &str, address: &str) -> bool {
        let listeners = Listeners::default();
        let _registered = listeners.register(listener.parse().unwrap());
        listeners.is_own(address.parse().unwrap())
    }

    #[test]
    fn a_listener_is_its_own_address_and_port_in_every_form() {
        for address in ["127.0.0.1:80", "[::ffff:127.0.0.1]:80"] {
            assert!(is_own("127.0.0.1:80", address), "{address}");
            assert!(is_own("[::ffff:127.0.0.1]:80", address), "{address}");
        }
        for address in ["127.0.0.1:81", "127.0.0.2:80", "[::1]:80", "192.0.2.1:80"] {
            assert!(!is_own("127.0.0.1:80", address), "{address}");
        }
    }

    #[test]
    fn a_listener_on_every_address_is_each_address_of_this_machine() {
        for listener in ["0.0.0.0:80", "[::]:80"] {
            for address in ["127.0.0.1:80", "127.9.9.9:80", "0.0.0.0:80", "[::1]:80", "[::ffff:127.0.0.1]:80"]
            {
                assert!(is_own(listener, address), "{listener} {address}");
            }
            for address in ["127.0.0.1:81", "192.0.2.1:80", "8.8.8.8:80"] {
                assert!(!is_own(listener, address), "{listener} {address}");
            }
        }
    }

    #[test]
    fn an_address_of_a_network_interface_is_of_this_machine() {
        // The address that packets to the outside would have, where there is an outside.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            assert!(is_here(socket.local_addr().unwrap().ip()));
        }
        assert!(!is_here("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn a_listener_is_forgotten_when_it_ends_and_no_other_with_it() {
        let listeners = Listeners::default();
        let address = "127.0.0.1:80".parse().unwrap();
        let (first, second) = (listeners.register(address), listeners.register(address));
        drop(first);
        assert!(listeners.is_own(address));
        drop(second);
        assert!(!listeners.is_own(address));
    }
}
