//! One tar header: its checksum and the numbers in it (tar(5)). The crate `tar` knows where the fields are; the numbers
//! are read here, because it takes neither negative nor blank ones.

use super::stream::BLOCK;

/// Whether the block holds the checksum of itself, by unsigned bytes or, as some old writers had it, by signed ones.
pub(super) fn is_header(block: &[u8; BLOCK]) -> bool {
    let Some(Ok(expected)) = number(&block[148..156]) else {
        return false;
    };
    // The field itself counts as eight spaces.
    let others = || block[..148].iter().chain(&block[156..]).copied();
    let unsigned: i64 = others().map(i64::from).sum();
    let signed: i64 = others().map(|byte| i64::from(byte as i8)).sum();
    let field = 8 * i64::from(b' ');
    expected == unsigned + field || expected == signed + field
}

/// Whether the block is all zeros, which ends an archive.
pub(super) fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// A number field that holds no number, or one beyond 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadNumber;

/// Reads a number field: octal digits between spaces and NULs, or base-256 in two's complement where the first bit is
/// set. `None`: the field is blank.
pub(super) fn number(field: &[u8]) -> Option<Result<i64, BadNumber>> {
    if field.first()? & 0x80 != 0 {
        return Some(base256(field));
    }
    let text = field.trim_ascii_start();
    let end = text
        .iter()
        .position(|&byte| byte == 0 || byte == b' ')
        .unwrap_or(text.len());
    if end == 0 {
        return None;
    }
    Some(octal(&text[..end]))
}

fn octal(digits: &[u8]) -> Result<i64, BadNumber> {
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or(BadNumber),
        _ => Err(BadNumber),
    })
}

fn base256(field: &[u8]) -> Result<i64, BadNumber> {
    // The first bit marks the encoding, the second is the sign.
    let first = field[0] & 0x7f;
    let start = if first & 0x40 != 0 {
        i64::from(first) - 0x80
    } else {
        i64::from(first)
    };
    field[1..].iter().try_fold(start, |value, &byte| {
        value
            .checked_mul(256)
            .and_then(|value| value.checked_add(i64::from(byte)))
            .ok_or(BadNumber)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Number = Option<Result<i64, BadNumber>>;

    #[test]
    fn number_fields_are_read_in_every_encoding() {
        let negative = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ];
        let large = [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1];
        let beyond = [0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let table: &[(&[u8], Number)] = &[
            (b"0000644\0", Some(Ok(0o644))),
            (b"   644 \0", Some(Ok(0o644))),
            (b"77777777", Some(Ok(0o77777777))),
            (b"644\0junk", Some(Ok(0o644))),
            (b"\0\0\0\0\0\0\0\0", None),
            (b"        ", None),
            (b"00x0644\0", Some(Err(BadNumber))),
            (b"0000888\0", Some(Err(BadNumber))),
            (b"-0000001", Some(Err(BadNumber))),
            (&negative, Some(Ok(-1))),
            (&large, Some(Ok((2 << 32) + 1))),
            (&beyond, Some(Err(BadNumber))),
            (b"", None),
        ];
        for (field, expected) in table {
            assert_eq!(number(field), *expected, "{field:?}");
        }
    }

    #[test]
    fn a_checksum_may_be_signed_or_unsigned() {
        let mut block = [0; BLOCK];
        block[0] = 0xe9;
        for sum in [0xe9 + 256, 0xe9] {
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            assert!(is_header(&block), "{sum}");
        }
        block[0] = b'a';
        assert!(!is_header(&block));
    }
}
