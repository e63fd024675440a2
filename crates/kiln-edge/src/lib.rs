//! The reverse proxy that serves a RouteTable and outlives the controller.
