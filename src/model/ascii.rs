//! Header values that are made once per write and sent with every read.

use std::fmt;

/// Exactly `N` bytes of ASCII text, kept in place: no allocation per config.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ascii<const N: usize>([u8; N]);

impl<const N: usize> Ascii<N> {
    fn as_str(&self) -> &str {
        // Only ASCII is ever put in; the empty text would be seen at once in an answer.
        debug_assert!(self.0.is_ascii());
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The text form of an [`super::Md5`]: 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Md5Hex(Ascii<32>);

impl Md5Hex {
    pub(super) fn new(digest: &[u8; 16]) -> Md5Hex {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(digest) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Md5Hex(Ascii(text))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The digits, as a header takes them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }
}

impl fmt::Debug for Md5Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Md5Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A moment as HTTP writes it, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HttpDate(Ascii<29>);

impl HttpDate {
    /// The second that holds this millisecond since the epoch. Years outside of 0..=9999 cannot be
    /// written and become the nearest one.
    pub fn from_ms(ms: i64) -> HttpDate {
        const FIRST_S: i64 = -62_167_219_200;
        const LAST_S: i64 = 253_402_300_799;
        const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
        const MONTHS: [&[u8; 3]; 12] = [
            b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
        ];
        let seconds = ms.div_euclid(1_000).clamp(FIRST_S, LAST_S);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        text[0..3].copy_from_slice(DAYS[days.rem_euclid(7) as usize]);
        put_decimal(&mut text[5..7], day);
        text[8..11].copy_from_slice(MONTHS[(month - 1) as usize]);
        put_decimal(&mut text[12..16], year);
        put_decimal(&mut text[17..19], second / 3_600);
        put_decimal(&mut text[20..22], second / 60 % 60);
        put_decimal(&mut text[23..25], second % 60);
        HttpDate(Ascii(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The text, as a header takes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.0
    }
}

impl fmt::Debug for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Year, month (1..=12) and day (1..=31) of a day counted from 1970-01-01 in the Gregorian calendar.
/// Years are counted from March here, so that the leap day is the last of its year, and in eras of 400
/// years, which all have the same number of days.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097;
    let days = days + 719_468; // from 0000-03-01
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// Writes `number` right-aligned with leading zeros.
fn put_decimal(to: &mut [u8], mut number: i64) {
    for digit in to.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_date_of_known_moments() {
        let cases = [
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (1_709_164_800_999, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (951_827_696_000, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (i64::MIN, "Sat, 01 Jan 0000 00:00:00 GMT"),
        ];
        for (ms, text) in cases {
            assert_eq!(HttpDate::from_ms(ms).as_str(), text, "{ms}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1599, 12, 31);
        for days in -135_140..200_000 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
            assert_eq!(civil(days), (year, month, day));
        }
    }
}
