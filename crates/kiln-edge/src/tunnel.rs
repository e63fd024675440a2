//! After `101 Switching Protocols`: bytes both ways until one side ends.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::Response;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::answer::AnswerBody;
use crate::headers::forward_switch;
use crate::link::{Link, Stage, Switch};
use crate::ticket::Ticket;

/// Agrees to the other protocol in the backend's name and starts to tunnel.
pub(crate) fn open(
    link: &Arc<Link>,
    mut ticket: Ticket,
    client: OnUpgrade,
    mut answer: Response<Incoming>,
) -> Response<AnswerBody> {
    let backend = hyper::upgrade::on(&mut answer);
    ticket.answering(answer.status());
    link.decide_switch(Switch::Accepted);
    tokio::spawn(carry(Arc::clone(link), ticket, client, backend));
    let (mut parts, _) = answer.into_parts();
    forward_switch(&mut parts.headers);
    Response::from_parts(parts, AnswerBody::Made(None))
}

async fn carry(link: Arc<Link>, mut ticket: Ticket, client: OnUpgrade, backend: OnUpgrade) {
    // A client that leaves before the switch has left its request.
    let Ok(client) = client.await else { return };
    let Ok(backend) = backend.await else { return ticket.cut() };
    link.enter(Stage::Tunnel);
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    let mut copying = pin!(tokio::io::copy_bidirectional(&mut client, &mut backend));
    let carried = std::future::poll_fn(|cx| {
        link.driven_by(cx.waker());
        match copying.as_mut().poll(cx) {
            Poll::Pending if link.has_expired(Stage::Tunnel) => Poll::Ready(Ok((0, 0))),
            polled => polled,
        }
    })
    .await;
    // However it ends: which side did it, and whether that was meant, only the protocol inside could tell.
    ticket.answered();
    if let Ok((_, to_client)) = carried {
        ticket.sent(usize::try_from(to_client).unwrap_or(usize::MAX));
    }
}
