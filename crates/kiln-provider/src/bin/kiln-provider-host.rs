//! A host process alone: `kiln-provider-host STATE IMAGES`. The tests kill it and start it again.

use std::error::Error;
use std::net::SocketAddr;
use std::thread;

use kiln_model::route::Listener;
use kiln_provider::host::{
    FolderImages, HostConfig, Listeners, Server, ZYGOTE_COMMAND, ZygoteProgram, run_zygote,
};

/// There is no edge beside this process.
struct NoEdge;

impl Listeners for NoEdge {
    fn open(&self, _listener: Listener, _address: SocketAddr) -> Result<(), String> {
        Err("this host has no edge".into())
    }

    fn close(&self, _listener: Listener) -> Result<(), String> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [command] if command == ZYGOTE_COMMAND => Ok(run_zygote()?),
        [state, images] => {
            let config = HostConfig {
                state_dir: state.into(),
                images: Box::new(FolderImages::new(images)),
                listeners: Box::new(NoEdge),
                zygote: ZygoteProgram::default(),
            };
            let _server = Server::start(config)?;
            loop {
                thread::park();
            }
        }
        _ => Err("usage: kiln-provider-host STATE IMAGES".into()),
    }
}
