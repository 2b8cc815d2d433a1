//! One host's answer, and the message that viewers get for it.

use bytes::{BufMut, Bytes};

use super::ids::{CampaignId, HostId, Seq};

/// A host's answer before it has a place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answered.
    pub host: HostId,
    /// Whether the query failed on the host.
    pub failed: bool,
    /// The members of `result.data` that follow `seq`, without the braces around them:
    /// `"host":{...},"rows":[...],"stats":...,"error":...`. Valid JSON when wrapped in braces.
    pub body: Bytes,
}

/// An answer with its place in the log, as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position; gapless from 1.
    pub seq: Seq,
    /// The answer.
    pub answer: Answer,
}

impl Record {
    /// Appends the complete `result` message: one JSON text without line feeds between tokens.
    pub fn write_message(&self, campaign: CampaignId, out: &mut impl BufMut) {
        out.put_slice(br#"{"type":"result","data":{"distributed_query_execution_id":"#);
        put_decimal(campaign.0, out);
        out.put_slice(br#","seq":"#);
        put_decimal(self.seq.0, out);
        out.put_slice(b",");
        out.put_slice(&self.answer.body);
        out.put_slice(b"}}");
    }
}

/// Writes a number without allocating: this runs once for each answer.
fn put_decimal(mut number: u64, out: &mut impl BufMut) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_campaign_and_its_place() {
        let body = Bytes::from_static(br#""host":{"id":3},"rows":[],"error":null"#);
        let record = Record {
            seq: Seq(1024),
            answer: Answer {
                host: HostId(3),
                failed: false,
                body,
            },
        };
        let mut message = Vec::new();
        record.write_message(CampaignId(7), &mut message);
        let message: serde_json::Value = serde_json::from_slice(&message).unwrap();
        assert_eq!(message["type"], "result");
        assert_eq!(message["data"]["distributed_query_execution_id"], 7);
        assert_eq!(message["data"]["seq"], 1024);
        assert_eq!(message["data"]["host"]["id"], 3);
        assert!(message["data"]["error"].is_null());
    }
}
