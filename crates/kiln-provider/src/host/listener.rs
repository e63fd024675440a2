//! The sockets that the edge serves: the host owns them, so that killing the edge refuses no connect.

use std::net::{IpAddr, SocketAddr};

use kiln_model::Fence;
use kiln_model::route::Listener;

use super::Host;
use crate::port::ProviderError;

/// Where `http://SERVICE.STACK.kiln` leads.
const INTERNAL_PORT: u16 = 80;

/// Who opens sockets and hands them to the edge.
pub trait Listeners: Send + Sync {
    /// Binds `address` for `listener` and hands the socket to the edge; that it is open already is no error.
    ///
    /// The error is why, for people.
    fn open(&self, listener: Listener, address: SocketAddr) -> Result<(), String>;

    /// Closes the socket; that there is none is no error.
    fn close(&self, listener: Listener) -> Result<(), String>;
}

impl Host {
    /// Opens a socket, and returns where.
    ///
    /// # Errors
    /// `Fenced`; `Failed` with the reason, such as a port in use.
    pub fn open_listener(&self, listener: Listener, fence: Fence) -> Result<SocketAddr, ProviderError> {
        self.fences().admit(fence.term)?;
        let address = match listener {
            Listener::Public(address) => address,
            Listener::Internal(index) => {
                let address =
                    self.network.internal_address(index).map_err(|error| ProviderError::Failed {
                        reason: format!("cannot put the address of {listener} on the bridge: {error}"),
                    })?;
                SocketAddr::new(IpAddr::V4(address), INTERNAL_PORT)
            }
        };
        self.listeners.open(listener, address).map_err(|reason| ProviderError::Failed { reason })?;
        Ok(address)
    }

    /// Puts the address of an internal listener on the bridge, where a restart of the machine may have removed it.
    ///
    /// # Errors
    /// As netlink.
    pub fn internal_address(&self, index: u8) -> std::io::Result<std::net::Ipv4Addr> {
        self.network.internal_address(index)
    }

    /// Closes a socket.
    ///
    /// # Errors
    /// `Fenced`; `Failed` with the reason.
    pub fn close_listener(&self, listener: Listener, fence: Fence) -> Result<(), ProviderError> {
        self.fences().admit(fence.term)?;
        self.listeners.close(listener).map_err(|reason| ProviderError::Failed { reason })
    }
}
