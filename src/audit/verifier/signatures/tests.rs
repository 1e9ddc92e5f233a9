use ed25519_dalek::{Signature, Signer, SigningKey};

use super::*;

fn signed(key: &SigningKey, number: u64) -> Signed {
    let text = format!("gate.example.com/serve-0\n{number}\nroot\n").into_bytes();
    let signature = key.sign(&text);
    let key = key.verifying_key();
    Signed { text, signature, key, index: number, until: number + 1, offset: number, segment: 0 }
}

/// A batch by two keys.
fn batch(count: u64) -> Vec<Signed> {
    let keys = [SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32])];
    (0..count).map(|number| signed(&keys[usize::from(number % 5 == 0)], number)).collect()
}

#[test]
fn a_batch_of_valid_signatures_is_valid() {
    for count in [1, 2, 3, 4, 5, 64, 200, 1_024] {
        assert!(are_valid(&batch(count)), "{count}");
        assert_eq!(first_invalid(&batch(count)), None);
    }
}

#[test]
fn a_flipped_bit_of_any_signature_is_found_wherever_it_is() {
    let good = batch(9);
    for bit in 0..512 {
        let at = bit % good.len();
        let mut batch = good.clone();
        let mut bytes = batch[at].signature.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        batch[at].signature = Signature::from_bytes(&bytes);
        assert!(!are_valid(&batch), "bit {bit}");
        assert_eq!(first_invalid(&batch), Some(at), "bit {bit}");
    }
}

#[test]
fn another_text_another_key_and_a_swap_are_found() {
    let good = batch(9);
    for at in 0..good.len() {
        let mut batch = good.clone();
        batch[at].text.push(b'\n');
        assert_eq!(first_invalid(&batch), Some(at));
        let mut batch = good.clone();
        batch[at].key = SigningKey::from_bytes(&[3; 32]).verifying_key();
        assert_eq!(first_invalid(&batch), Some(at));
        let mut batch = good.clone();
        batch[at].signature = good[(at + 1) % good.len()].signature;
        assert!(!are_valid(&batch));
        assert_eq!(first_invalid(&batch), Some(at));
    }
}

/// Two signatures that are wrong by the same amount in opposite directions: with equal weights their sum is right.
#[test]
fn errors_that_cancel_each_other_are_found() {
    let mut batch = batch(8);
    for (at, by) in [(1, Scalar::ONE), (2, -Scalar::ONE)] {
        let s = Scalar::from_canonical_bytes(*batch[at].signature.s_bytes()).unwrap() + by;
        let r = *batch[at].signature.r_bytes();
        batch[at].signature = Signature::from_components(r, s.to_bytes());
    }
    assert!(!are_valid(&batch));
    assert_eq!(first_invalid(&batch), Some(1));
}

#[test]
fn workers_agree_on_the_first_bad_signature() {
    for bad in [&[0][..], &[7, 3], &[19], &[5, 6, 7, 8, 9], &[]] {
        let (sender, receiver) = std::sync::mpsc::channel();
        for number in 0..20 {
            let mut batch = batch(4);
            batch.iter_mut().for_each(|signed| signed.offset += number * 100);
            if bad.contains(&number) {
                batch[2].text.clear();
            }
            sender.send(batch).unwrap();
        }
        drop(sender);
        let batches = Batches::new(receiver);
        let found = thread::scope(|scope| {
            let workers: Vec<_> = (0..3).map(|_| scope.spawn(|| batches.verify())).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).fold(Found::default(), Found::and)
        });
        assert!(found.valid <= 80 && (found.valid == 80) == bad.is_empty());
        let first = bad.iter().min().map(|number| number * 100 + 2);
        assert_eq!(found.first_bad().map(|signed| signed.offset), first);
    }
}
