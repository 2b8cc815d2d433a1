//! One simulated host: who it is. Everything follows from its index, so that a restart plays the same fleet.

/// The operating systems of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Platform {
    Ubuntu,
    Darwin,
    Windows,
    CentOs,
}

/// A simulated host.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) index: usize,
    pub(super) platform: Platform,
    pub(super) hostname: String,
    pub(super) uuid: String,
}

/// Four in ten run Ubuntu, three macOS, two Windows, one CentOS.
const MIX: [Platform; 10] = [
    Platform::Ubuntu,
    Platform::Darwin,
    Platform::Windows,
    Platform::Ubuntu,
    Platform::Darwin,
    Platform::CentOs,
    Platform::Ubuntu,
    Platform::Windows,
    Platform::Darwin,
    Platform::Ubuntu,
];

impl Host {
    pub(super) fn new(index: usize) -> Self {
        let platform = MIX[index % MIX.len()];
        let number = index + 1;
        let hostname = match platform {
            Platform::Ubuntu => format!("web-{number:03}.example.test"),
            Platform::Darwin => format!("mac-{number:03}.example.test"),
            Platform::Windows => format!("DESK-{number:03}"),
            Platform::CentOs => format!("db-{number:03}.example.test"),
        };
        let bits = (
            scatter(index as u64),
            scatter(index as u64 ^ 0x5eed_0000_0000),
        );
        let uuid = format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            bits.0 >> 32,
            (bits.0 >> 16) & 0xffff,
            bits.0 & 0xfff,
            bits.1 >> 52,
            bits.1 & 0xffff_ffff_ffff
        );
        Self {
            index,
            platform,
            hostname,
            uuid,
        }
    }

    /// A number below `bound` that is always the same for this host and `salt`.
    pub(super) fn pick(&self, salt: u64, bound: u64) -> u64 {
        scatter((self.index as u64) << 20 ^ salt) % bound.max(1)
    }

    /// One of `choices`, always the same for this host and `salt`.
    pub(super) fn choose<'a>(&self, salt: u64, choices: &[&'a str]) -> &'a str {
        let at = self.pick(salt, choices.len() as u64);
        usize::try_from(at)
            .ok()
            .and_then(|at| choices.get(at).copied())
            .unwrap_or("")
    }

    /// The host's address in the demo's private network.
    pub(super) fn address(&self) -> String {
        let number = self.index + 10;
        format!("10.20.{}.{}", number / 250 % 250, number % 250 + 1)
    }

    /// The hardware address that goes with [`Host::address`].
    pub(super) fn hardware_address(&self) -> String {
        let bits = scatter(self.index as u64 ^ 0xe7e7);
        format!(
            "02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
            bits & 0xff,
            bits >> 8 & 0xff,
            bits >> 16 & 0xff,
            bits >> 24 & 0xff,
            bits >> 32 & 0xff
        )
    }
}

/// Spreads the bits of `value` (the finisher of splitmix64): neighbours become unlike.
fn scatter(value: u64) -> u64 {
    let mut bits = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
