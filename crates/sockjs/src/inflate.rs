//! Inflating permessage-deflate messages (RFC 7692), each for itself and within a bound.

use flate2::{Decompress, FlushDecompress, Status};

/// What a sync flush ends with and RFC 7692 (7.2.1) leaves off the wire.
pub(super) const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// How fast the output of [`inflate`] may grow at a time, in bytes.
const INFLATE_STEP: usize = 16 * 1024;

/// Why a message could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It would be longer than allowed.
    #[error("inflated data is too large")]
    TooLarge,
    /// It is not what deflate makes.
    #[error("compressed data is broken")]
    Broken,
}

/// Inflates one message to at most `max` bytes.
///
/// # Errors
/// [`InflateError`], as soon as the bound is passed: a bomb is not unpacked to its end.
pub fn inflate(data: &[u8], max: usize) -> Result<Vec<u8>, InflateError> {
    let mut state = Decompress::new(false);
    let mut out = Vec::new();
    for mut input in [data, &TAIL] {
        loop {
            let (read, written) = (state.total_in(), state.total_out());
            if out.capacity() == out.len() {
                out.reserve(INFLATE_STEP.min(max + 1 - out.len()));
            }
            let status = state
                .decompress_vec(input, &mut out, FlushDecompress::Sync)
                .map_err(|_| InflateError::Broken)?;
            if out.len() > max {
                return Err(InflateError::TooLarge);
            }
            let taken = usize::try_from(state.total_in() - read).unwrap_or(usize::MAX);
            input = input.get(taken..).unwrap_or_default();
            match status {
                // A sender may end its deflate stream and begin another (RFC 7692, 7.2.3.4).
                Status::StreamEnd => state.reset(false),
                Status::Ok | Status::BufError => {
                    if out.len() < out.capacity() && input.is_empty() {
                        break;
                    }
                    if taken == 0 && state.total_out() == written {
                        return Err(InflateError::Broken);
                    }
                    continue;
                }
            }
            if input.is_empty() {
                break;
            }
        }
    }
    Ok(out)
}
