//! A watch on its way through: line by line, until it is broken off.

use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;
use tokio::sync::watch;

use super::{BoxError, broken_off};

struct Watch {
    body: Body,
    cuts: watch::Receiver<u64>,
    bookmarks_only: watch::Receiver<bool>,
    torn: BytesMut,
}

/// The same stream, as long as no cut comes, and with only its bookmarks while that is asked for.
pub(super) fn watched(
    body: Body,
    mut cuts: watch::Receiver<u64>,
    bookmarks_only: watch::Receiver<bool>,
) -> UnsyncBoxBody<Bytes, BoxError> {
    // What was cut before this watch began is not its end.
    cuts.mark_unchanged();
    let watch = Watch { body, cuts, bookmarks_only, torn: BytesMut::new() };
    let frames = stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(lines) => lines.map(|lines| (Ok(Frame::data(lines)), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

impl Watch {
    /// The next whole lines; `None`: the server ended the watch.
    async fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        loop {
            let frame = tokio::select! {
                frame = self.body.frame() => frame,
                Ok(()) = self.cuts.changed() => return Err(broken_off()),
            };
            let Some(frame) = frame else { return Ok(None) };
            let Ok(data) = frame?.into_data() else { continue };
            self.torn.extend_from_slice(&data);
            let Some(end) = self.torn.iter().rposition(|byte| *byte == b'\n') else { continue };
            let lines = self.torn.split_to(end + 1).freeze();
            let lines = if *self.bookmarks_only.borrow() { bookmarks(&lines) } else { lines };
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
        }
    }
}

fn bookmarks(lines: &[u8]) -> Bytes {
    let kept = lines.split_inclusive(|byte| *byte == b'\n');
    let kept = kept.filter(|line| line.starts_with(br#"{"type":"BOOKMARK""#));
    kept.flatten().copied().collect::<Vec<u8>>().into()
}
