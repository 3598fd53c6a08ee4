//! Chance from a seed, so that a run can be replayed. Not for secrets.

/// SplitMix64 (Steele, Lea, Flood 2014): tiny, fast, and good enough to spread load.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0.0..1.0`.
    pub fn fraction(&mut self) -> f64 {
        // 53 bits fill a double exactly.
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// 128 bits as a version 4 UUID.
    pub fn uuid(&mut self) -> String {
        let (high, low) = (self.bits(), self.bits());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_stay_in_range_and_spread() {
        let mut random = Random::new(7);
        let mut low = 0;
        for _ in 0..10_000 {
            let f = random.fraction();
            assert!((0.0..1.0).contains(&f));
            low += u32::from(f < 0.5);
        }
        assert!((4_700..5_300).contains(&low), "{low}");
    }

    #[test]
    fn a_uuid_has_its_shape() {
        let id = Random::new(1).uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}
