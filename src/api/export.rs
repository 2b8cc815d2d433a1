//! Results of a campaign as a file: read from the store piece by piece while the client takes them.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use super::audit;
use super::call::Call;
use super::csv;
use super::error::ApiError;
use super::reply::Reply;
use super::wire::rows::{Stored, text_of};
use crate::auth::Actor;
use crate::net::aside;
use crate::results::{Campaign, CampaignId, Record, Seq};

/// Bytes of answers that are read from the store at once.
pub(super) const READ_BYTES: usize = 256 * 1024;
/// Pieces that wait for a slow client.
const PIECES_AHEAD: usize = 2;

/// How the results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Ndjson,
    Json,
    Csv,
}

/// `GET /campaigns/{id}/results`.
///
/// # Errors
/// 400 for an unknown format, 403, 404; a store that fails later cuts the stream off.
pub(super) async fn results(api: Arc<Api>, call: Call) -> Result<Reply, ApiError> {
    let format = match call.asked("format") {
        None | Some("ndjson") => Format::Ndjson,
        Some("json") => Format::Json,
        Some("csv") => Format::Csv,
        Some(other) => {
            let reason = format!("format must be ndjson, json or csv, and is {other:?}");
            return Err(ApiError::BadRequest(reason));
        }
    };
    let after = Seq(call.asked_number("after")?.unwrap_or(0));
    let epoch = call.asked_number("epoch")?.unwrap_or(0);
    let campaign = call.campaign(&api).await?;
    let id = campaign.id;
    // As for viewers: who names a place and no epoch means the first.
    if after > Seq(0) && epoch != campaign.epoch {
        let now = campaign.epoch;
        let reason = format!(
            "results of campaign {id} stand at other places since epoch {now}: read them from the beginning, and name the \
             epoch with after from then on"
        );
        return Err(ApiError::BadRequest(reason));
    }
    let Some(log) = api.parts.store.follow(id).await? else {
        let reason = format!("the results of campaign {id} are not kept any more");
        return Err(ApiError::NotFound(reason));
    };
    let is_incomplete = campaign.is_incomplete;
    let actor = call.actor()?;
    if campaign.question.user_id != actor.user.id {
        let details = json!({"campaign_id": id});
        audit::record(&api, actor, "exported_results", details, call.now).await;
    }
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    let export = Export {
        api: Arc::clone(&api),
        reader: (actor.clone(), campaign),
        id,
        promised: log.last(),
        sender,
    };
    api.parts.tasks.spawn(export.run(format, after));
    let (kind, ending) = match format {
        Format::Ndjson => ("application/x-ndjson", "ndjson"),
        Format::Json => ("application/json; charset=utf-8", "json"),
        Format::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
    };
    let file = format!("campaign-{id}.{ending}");
    let reply = Reply::stream(kind, &file, ReceiverStream::new(pieces));
    Ok(if is_incomplete {
        reply.incomplete()
    } else {
        reply
    })
}

/// Writes into the stream of one response; ends early when the client is gone.
struct Export {
    api: Arc<Api>,
    /// Whoever is no longer allowed to read the campaign gets no more of it.
    reader: (Actor, Campaign),
    id: CampaignId,
    /// The last answer when the export began. If the results are forgotten before it is read, the body has no end.
    promised: Seq,
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
}

/// The client is gone, or has been told of a failure.
struct Over;

impl Export {
    async fn run(self, format: Format, after: Seq) {
        // Either way there is nobody left to tell.
        let _ = match format {
            Format::Ndjson => self.ndjson(after).await,
            Format::Json => self.json(after).await,
            Format::Csv => self.csv(after).await,
        };
    }

    async fn ndjson(&self, mut after: Seq) -> Result<(), Over> {
        while let Some(records) = self.read(&mut after).await? {
            let mut out = BytesMut::new();
            for record in &records {
                self.write_data(record, &mut out);
                out.put_u8(b'\n');
            }
            self.send(out).await?;
        }
        Ok(())
    }

    async fn json(&self, mut after: Seq) -> Result<(), Over> {
        let incomplete = if self.reader.1.is_incomplete {
            "\"incomplete\":true,"
        } else {
            ""
        };
        let head = format!("{{\"campaign_id\":{},{incomplete}\"results\":[", self.id);
        self.send(BytesMut::from(head.as_str())).await?;
        let mut first = true;
        while let Some(records) = self.read(&mut after).await? {
            let mut out = BytesMut::new();
            for record in &records {
                out.put_slice(if first { b"\n" } else { b",\n" });
                first = false;
                self.write_data(record, &mut out);
            }
            self.send(out).await?;
        }
        self.send(BytesMut::from("\n]}\n")).await
    }

    /// Reads twice: a table needs all its columns before its first row.
    async fn csv(&self, start: Seq) -> Result<(), Over> {
        let mut columns = csv::Columns::default();
        let mut last = start;
        while let Some(records) = self.read(&mut last).await? {
            for Record { answer, .. } in &records {
                aside(answer.body.len(), || columns.learn(answer));
            }
        }
        let mut out = BytesMut::new();
        let table = columns.table();
        table.write_head(&mut out);
        self.send(out).await?;
        let mut after = start;
        while after < last
            && let Some(mut records) = self.read(&mut after).await?
        {
            // What came since the first reading may have columns that the head has not.
            records.retain(|record| record.seq <= last);
            let mut out = BytesMut::new();
            for Record { answer, .. } in &records {
                let text = text_of(answer);
                let answer = aside(text.len(), || Stored::read(answer.host, &text));
                let mut from = 0;
                while let Some(at) = table.write(&answer, from, &mut out) {
                    from = at;
                    self.send(out.split()).await?;
                }
            }
            self.send(out).await?;
        }
        Ok(())
    }

    /// The next records; none at the end of the log as it is now.
    async fn read(&self, after: &mut Seq) -> Result<Option<Vec<Record>>, Over> {
        if !self.is_allowed() {
            return Err(self.cut("the right to read this campaign is gone").await);
        }
        let read = self.api.parts.store.read(self.id, *after, READ_BYTES).await;
        match read {
            Ok(records) if records.is_empty() && *after < self.promised => {
                let why = format!("answers from {} on are not kept any more", after.next());
                Err(self.cut(&why).await)
            }
            Ok(records) => {
                if let Some(last) = records.last() {
                    *after = last.seq;
                }
                Ok((!records.is_empty()).then_some(records))
            }
            Err(error) => {
                tracing::warn!(campaign = self.id.0, %error, "an export was cut off");
                Err(self.cut(&error.to_string()).await)
            }
        }
    }

    /// Says in a last line why there is no more, and ends the body without its end, so that programs know that they have
    /// not got all.
    async fn cut(&self, why: &str) -> Over {
        let line = format!("\n{}\n", json!({"error": why, "incomplete": true}));
        let _ = self.sender.send(Ok(line.into())).await;
        let _ = self
            .sender
            .send(Err(io::Error::other(why.to_owned())))
            .await;
        Over
    }

    fn is_allowed(&self) -> bool {
        let (actor, campaign) = &self.reader;
        let now = self.api.parts.clock.now();
        let actor = self.api.parts.auth.renew(actor, now);
        actor.is_some_and(|actor| actor.may_watch(campaign))
    }

    async fn send(&self, piece: BytesMut) -> Result<(), Over> {
        if piece.is_empty() {
            return Ok(());
        }
        self.sender.send(Ok(piece.freeze())).await.map_err(|_| Over)
    }

    /// The `data` of the message that viewers get.
    fn write_data(&self, record: &Record, out: &mut BytesMut) {
        let head = format!(
            "{{\"distributed_query_execution_id\":{},\"seq\":{},",
            self.id, record.seq
        );
        out.put_slice(head.as_bytes());
        out.put_slice(&record.answer.body);
        out.put_u8(b'}');
    }
}
