//! RSA moduli that look sound and are not.

/// How many bits a number has, without leading zeros.
pub(super) fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| 8 - byte.leading_zeros() as usize);
    first + 8 * number.len().saturating_sub(zeros + 1)
}

/// Whether a modulus has the fingerprint of the generator of CVE-2017-15361 (ROCA): its primes
/// are `k·M + 65537^a mod M`, so modulo each small prime the modulus is a power of 65537.
/// A sound modulus of 2048 bits passes for one by chance less than once in 10⁸.
pub(super) fn has_roca_shape(modulus: &[u8]) -> bool {
    SMALL_PRIMES.into_iter().all(|prime| is_power_of_65537(remainder(modulus, prime), prime))
}

/// The odd primes whose product divides the `M` of every length of key.
const SMALL_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

fn remainder(number: &[u8], divisor: u32) -> u32 {
    number.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % divisor)
}

fn is_power_of_65537(value: u32, prime: u32) -> bool {
    std::iter::successors(Some(1), |power| Some(power * (65_537 % prime) % prime))
        .take(prime as usize)
        .any(|power| power == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_from_the_highest_that_is_set() {
        for (number, expected) in
            [(&[][..], 0), (&[0], 0), (&[1], 1), (&[0, 0x80], 8), (&[1, 0], 9), (&[0xFF; 256], 2_048)]
        {
            assert_eq!(bits(number), expected, "{number:?}");
        }
    }

    #[test]
    fn remainders_and_powers_are_those_of_arithmetic() {
        assert_eq!(remainder(&123_456_789_u32.to_be_bytes(), 167), 123_456_789 % 167);
        // 65537 = 10 modulo 11, whose powers are 1 and 10.
        let powers: Vec<_> = (0..11).filter(|value| is_power_of_65537(*value, 11)).collect();
        assert_eq!(powers, [1, 10]);
    }

    #[test]
    fn an_arbitrary_modulus_does_not_have_the_fingerprint() {
        let arbitrary: Vec<u8> = (0..=255_u32).map(|index| (index * index * 31 + 7) as u8 | 1).collect();
        assert!(!has_roca_shape(&arbitrary));
    }
}
