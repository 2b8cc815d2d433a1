//! One host's answer, and the message that viewers get for it.

use bytes::{BufMut, Bytes};

use super::ids::{CampaignId, HostId, Seq};

const BEFORE_CAMPAIGN: &[u8] = br#"{"type":"result","data":{"distributed_query_execution_id":"#;
const BEFORE_SEQ: &[u8] = br#","seq":"#;
const BEFORE_BODY: &[u8] = b",";
const BEHIND_BODY: &[u8] = b"}}";

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
        out.put_slice(BEFORE_CAMPAIGN);
        put_decimal(campaign.0, out);
        out.put_slice(BEFORE_SEQ);
        put_decimal(self.seq.0, out);
        out.put_slice(BEFORE_BODY);
        out.put_slice(&self.answer.body);
        out.put_slice(BEHIND_BODY);
    }

    /// How many bytes [`Record::write_message`] appends.
    pub(super) fn message_len(&self, campaign: CampaignId) -> usize {
        let fixed = [BEFORE_CAMPAIGN, BEFORE_SEQ, BEFORE_BODY, BEHIND_BODY];
        let fixed: usize = fixed.iter().map(|part| part.len()).sum();
        fixed + digits(campaign.0) + digits(self.seq.0) + self.answer.body.len()
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
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

    #[test]
    fn the_length_of_a_message_is_known_before_it_is_written() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        for number in powers
            .flat_map(|power| [power - 1, power])
            .chain([u64::MAX])
        {
            let record = Record {
                seq: Seq(number),
                answer: Answer {
                    host: HostId(1),
                    failed: true,
                    body: Bytes::from_static(b"\"rows\":[]"),
                },
            };
            for campaign in [CampaignId(7), CampaignId(number)] {
                let mut message = Vec::new();
                record.write_message(campaign, &mut message);
                assert_eq!(record.message_len(campaign), message.len(), "{number}");
            }
        }
    }
}
