use super::*;
use crate::word_lines::Hint;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

fn stored(name: &str, fill: u8, suite: Suite) -> StoredShare {
    StoredShare {
        version: VersionOne,
        label: ShareLabel {
            cluster_id: [fill; 16],
            share_epoch: 1,
            custodian: CustodianName::parse(name).expect("valid"),
            share_index: 2,
        },
        shares: PassphraseBox {
            version: VersionOne,
            suite,
            memory_kib: 65_536,
            pass_count: 3,
            salt: vec![fill.wrapping_add(1); 16],
            nonce: vec![fill.wrapping_add(2); 12],
            ciphertext: (0..80).map(|n: u8| n.wrapping_mul(37).wrapping_add(fill)).collect(),
        },
    }
}

fn alice() -> StoredShare {
    stored("alice", 0xa5, Suite::Intl)
}

fn text(lines: &[Vec<Word>]) -> String {
    lines
        .iter()
        .enumerate()
        .map(|(position, line)| format!("{} {}\n", position + 1, line_text(line)))
        .collect()
}

fn without_numbers(lines: &[Vec<Word>]) -> String {
    lines.iter().map(|line| format!("{}\n", line_text(line))).collect()
}

fn problems(text: &str) -> Vec<LineProblem> {
    match open_words(text) {
        Err(PrintedShareError::Lines(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

fn line_of(problem: &LineProblem) -> usize {
    match problem {
        LineProblem::UnknownWord { line, .. }
        | LineProblem::WordCount { line, .. }
        | LineProblem::Check { line, .. }
        | LineProblem::Misplaced { line, .. }
        | LineProblem::Repeated { line }
        | LineProblem::Beyond { line, .. } => *line,
        LineProblem::Missing { first, .. } => *first,
    }
}

/// Written by a program of its own in Python, from docs/formats/custodian.md.
const ALICE_IN_WORDS: &str = "\
1 bamboo climb force spot curve spot notable try
2 regret pizza coffee harvest ensure fog spot speed
3 notable regret pink abandon abandon acoustic cactus fish
4 length abandon inquiry pluck cry predict essence prefer
5 heavy fashion once state pluck cry predict oblige
6 exercise kidney stable ozone visual police diamond stereo
7 try exercise frequent jealous extend cloth lonely uncle
8 edit lady common ship select quantum burger poverty
9 boss will carbon frozen display attitude another usage
10 various range result siege member pottery surprise two
11 gun settle embody hold pupil retreat bar economy
12 certain seat resemble tenant candy fatal transfer piece
13 mesh valve bronze mechanic isolate task deer false
14 begin vocal devote kitchen laptop artwork naive trouble
15 tennis drum huge marine green rigid abandon maze
";
const ALICE_IN_A_QR_CODE: &str = "KMS-SHARE-1:1205616C696365A5A5A5A5A5A5A5A5A5A5A5A5A5A5A5A5000000010201000003A6A6A6A6A6A6A6A6A6A6\
    A6A6A6A6A6A6A7A7A7A7A7A7A7A7A7A7A7A7A5CAEF14395E83A8CDF2173C6186ABD0F51A3F6489AED3F81D42678CB1D6\
    FB20456A8FB4D9FE23486D92B7DC01264B7095BADF04294E7398BDE2072C51769BC0E50A2F54799EC3E80D32577CA1C6\
    EB101995CF00";

/// These words are on paper in safes. When this fails, prints of an earlier build are no longer read.
#[test]
fn the_words_are_those_of_format_1() {
    assert_eq!(text(&to_lines(&alice()).expect("prints")), ALICE_IN_WORDS);
    assert_eq!(to_qr_text(&alice()).expect("prints"), ALICE_IN_A_QR_CODE);
}

#[test]
fn every_single_wrong_word_is_found_and_its_line_is_named() {
    let lines = to_lines(&alice()).expect("prints");
    for (position, line) in lines.iter().enumerate() {
        for place in 0..line.len() {
            // All 2,047 others of a line: word_lines.rs.
            for step in (1..2048).step_by(61).chain([2047]) {
                let mut changed = lines.clone();
                let number = (line[place].number() + step) % 2048;
                changed[position][place] = Word::new(number).expect("below 2,048");
                let found = problems(&text(&changed));
                assert!(found.iter().any(|problem| line_of(problem) == position + 1), "{found:?}");
                if position > 0 {
                    assert_eq!(found.len(), 1, "{found:?}");
                }
            }
        }
    }
}

#[test]
fn two_words_that_changed_places_are_found() {
    let lines = to_lines(&alice()).expect("prints");
    for (position, line) in lines.iter().enumerate() {
        for first in 0..line.len() {
            for second in first + 1..line.len() {
                if line[first] == line[second] {
                    continue;
                }
                let mut changed = lines.clone();
                changed[position].swap(first, second);
                let found = problems(&text(&changed));
                assert!(found.iter().any(|problem| line_of(problem) == position + 1), "{found:?}");
            }
        }
    }
}

#[test]
fn every_swapped_pair_of_lines_is_found() {
    let lines = to_lines(&alice()).expect("prints");
    for first in 0..lines.len() {
        for second in first + 1..lines.len() {
            let mut changed = lines.clone();
            changed.swap(first, second);
            for typed in [text(&changed), without_numbers(&changed)] {
                let named: Vec<usize> = problems(&typed).iter().map(line_of).collect();
                assert!(named.contains(&(first + 1)) && named.contains(&(second + 1)), "{named:?} {typed}");
            }
        }
    }
    let mut changed = lines;
    changed.swap(3, 8);
    assert_eq!(
        open_words(&without_numbers(&changed)).expect_err("swapped").to_string(),
        "the words are not all right:\nline 4 has the words of line 9\nline 9 has the words of line 4"
    );
}

#[test]
fn every_truncation_is_found_and_says_where_the_text_ends() {
    let lines = to_lines(&alice()).expect("prints");
    for kept in 1..lines.len() {
        let expected = [LineProblem::Missing { first: kept + 1, last: 15 }];
        assert_eq!(problems(&text(&lines[..kept])), expected);
        assert_eq!(problems(&without_numbers(&lines[..kept])), expected);
    }
    for typed in ["", "\n\n", "1\n2\n3", "。"] {
        assert_eq!(problems(typed), [LineProblem::Missing { first: 1, last: 1 }]);
    }
    let whole = text(&lines);
    for end in (0..whole.trim_end().len()).filter(|end| !whole[*end..].trim().is_empty()) {
        // Cut within a word: four letters of the last one are the word itself.
        let Err(error) = open_words(&whole[..end]) else {
            assert!(whole.trim_end().len() - end <= 4, "{end}");
            continue;
        };
        assert!(matches!(error, PrintedShareError::Lines(_)));
    }
}

#[test]
fn a_line_that_was_left_out_is_named_with_and_without_numbers() {
    let lines = to_lines(&alice()).expect("prints");
    for left_out in 0..lines.len() {
        let mut changed = lines.clone();
        changed.remove(left_out);
        let expected = LineProblem::Missing { first: left_out + 1, last: left_out + 1 };
        // Without the first line nobody knows how many there are, or what the others are.
        let found = problems(&without_numbers(&changed));
        assert!(found.contains(&expected), "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
        let numbered: String = text(&lines).lines().enumerate().fold(String::new(), |sum, (at, line)| {
            if at == left_out { sum } else { format!("{sum}{line}\n") }
        });
        assert_eq!(problems(&numbered), [expected]);
    }
}

#[test]
fn what_people_write_is_forgiven() {
    let share = alice();
    let lines = to_lines(&share).expect("prints");
    let plain = text(&lines);
    assert_eq!(open_words(&plain), Ok(share.clone()));
    assert_eq!(open_words(&without_numbers(&lines)), Ok(share.clone()));
    assert_eq!(open_words(&plain.to_uppercase()), Ok(share.clone()));
    assert_eq!(open_words(&plain.replace('\n', "\r\n\r\n")), Ok(share.clone()));
    assert_eq!(open_words(&plain.replace(' ', ", ")), Ok(share.clone()));
    assert_eq!(open_words(&plain.replace('\n', " ")), Ok(share.clone()), "numbers begin lines too");
    let short: String = lines
        .iter()
        .map(|line| {
            let words: Vec<&str> = line.iter().map(|word| &word.text()[..word.text().len().min(4)]).collect();
            format!("{}\n", words.join(" "))
        })
        .collect();
    assert_eq!(open_words(&short), Ok(share.clone()));
    let wide: String = plain
        .chars()
        .map(|letter| match letter {
            '!'..='~' => char::from_u32(u32::from(letter) + 0xfee0).expect("the wide form"),
            ' ' => '\u{3000}',
            other => other,
        })
        .collect();
    assert_eq!(open_words(&wide), Ok(share.clone()), "as an input method writes");
    let mut upside_down: Vec<&str> = plain.lines().collect();
    upside_down.reverse();
    assert_eq!(open_words(&upside_down.join("\n")), Ok(share), "numbered lines may come in any order");
}

#[test]
fn a_typing_error_is_named_with_the_word_that_was_meant() {
    let lines = to_lines(&alice()).expect("prints");
    let word = lines[3][2].text();
    let typed = text(&lines).replacen(
        &line_text(&lines[3]),
        &line_text(&lines[3]).replacen(word, &format!("x{word}"), 1),
        1,
    );
    assert_eq!(
        open_words(&typed).expect_err("one letter too many").to_string(),
        format!(
            "the words are not all right:\nline 4, word 3: \"x{word}\" is not in the list; did you mean {word}?"
        )
    );
    let mut changed = lines.clone();
    changed[5].swap(1, 2);
    assert_eq!(
        problems(&text(&changed)),
        [LineProblem::Check { line: 6, hint: Some(Hint::Exchanged { position: 2 }) }]
    );
    // Another word of the list that is one letter away.
    let (at, near) = (0..7)
        .find_map(|at| {
            let word = lines[7][at];
            let near = Word::all().find(|other| *other != word && other.typing_distance(word) <= 2)?;
            Some((at, near))
        })
        .expect("some word has a neighbour");
    let mut changed = lines.clone();
    changed[7][at] = near;
    let expected = Hint::Instead { position: at + 1, found: near, fits: lines[7][at] };
    assert_eq!(problems(&text(&changed)), [LineProblem::Check { line: 8, hint: Some(expected) }]);
    let mut changed = lines;
    changed[9].remove(4);
    changed[11].push(near);
    let found: Vec<String> = problems(&text(&changed)).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["line 10 has 7 words, it must have 8", "line 12 has 9 words, it must have 8"]);
}

#[test]
fn lines_of_two_prints_and_other_formats_are_refused() {
    let lines = to_lines(&alice()).expect("prints");
    let other = to_lines(&stored("alice", 0xa6, Suite::Intl)).expect("prints");
    let mut mixed = lines.clone();
    mixed[6] = other[6].clone();
    assert_eq!(open_words(&text(&mixed)), Err(PrintedShareError::Mixed));

    // Right lines of something else.
    let words: Vec<Word> = (0..20).map(|n| Word::new(n * 100).expect("below 2,048")).collect();
    assert_eq!(open_words(&text(&word_lines::write(&words))), Err(PrintedShareError::Unknown));

    let mut longer = lines.clone();
    longer.push(lines[0].clone());
    assert_eq!(problems(&text(&longer)), [LineProblem::Beyond { line: 16, last: 15 }]);
    let twice = format!("{}4 {}\n", text(&lines), line_text(&lines[3]));
    assert_eq!(problems(&twice), [LineProblem::Repeated { line: 4 }]);
    let zero = format!("{}0 {}\n", text(&lines), line_text(&lines[3]));
    assert_eq!(problems(&zero), [LineProblem::Beyond { line: 0, last: 15 }]);
    let huge = format!("{}99999999999999999999999 {}\n", text(&lines), line_text(&lines[3]));
    assert_eq!(problems(&huge).len(), 1);
    assert_eq!(problems(&format!("{huge}{}\n", line_text(&lines[3]))).len(), 2);
}

#[test]
fn the_filling_after_the_last_byte_is_checked() {
    let share = stored("bob", 1, Suite::Sm);
    let mut words: Vec<Word> = words::from_bytes(&to_checked_bytes(&share).expect("prints"));
    assert_ne!((FIXED_LEN + 3 + CHECK_LEN) * 8 % 11, 0, "there is filling");
    assert_eq!(open_words(&text(&word_lines::write(&words))), Ok(share));
    let last = words.last_mut().expect("not empty");
    *last = Word::new(last.number() | 1).expect("below 2,048");
    assert_eq!(open_words(&text(&word_lines::write(&words))), Err(PrintedShareError::Mixed));
}

#[test]
fn lines_are_typed_one_by_one_and_only_the_wrong_one_is_asked_again() {
    let share = alice();
    let lines = to_lines(&share).expect("prints");
    let mut typed = TypedShare::default();
    assert_eq!((typed.next_line(), typed.line_count()), (Some(1), None));
    assert!(typed.add(&line_text(&lines[1])).is_err(), "the second line is not the first");
    assert!(matches!(typed.finish(), Err(PrintedShareError::Lines(_))));
    for (position, line) in lines.iter().enumerate() {
        assert_eq!(typed.next_line(), Some(position + 1));
        let wrong = line_text(&[&line[1..], &line[..1]].concat());
        let Err(PrintedShareError::Lines(found)) = typed.add(&wrong) else {
            panic!("the check is not looked at")
        };
        assert_eq!(line_of(&found[0]), position + 1);
        assert!(typed.add("").is_err());
        assert_eq!(typed.next_line(), Some(position + 1), "the same line is asked for");
        typed.add(&format!("{}. {}", position + 1, line_text(line))).expect("the right line");
        assert_eq!(typed.line_count(), Some(15));
    }
    assert_eq!(typed.next_line(), None);
    assert_eq!(typed.finish(), Ok(share));
}

#[test]
fn a_qr_text_is_read_as_scanners_give_it() {
    let share = stored("erin", 9, Suite::Sm);
    let qr = to_qr_text(&share).expect("prints");
    assert!(
        qr.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase() || b"-:".contains(&byte))
    );
    assert_eq!(open_qr_text(&qr), Ok(share.clone()));
    assert_eq!(open_qr_text(&format!("\u{feff} {}\r\n", qr.to_lowercase())), Ok(share));
    assert_eq!(open_qr_text("https://example.org"), Err(PrintedShareError::NotQrText));
    for end in QR_PREFIX.len()..qr.len() {
        assert_eq!(open_qr_text(&qr[..end]), Err(PrintedShareError::DamagedQrText));
    }
    for position in QR_PREFIX.len()..qr.len() {
        let other = if qr.as_bytes()[position] == b'0' { "1" } else { "0" };
        let mut changed = qr.clone();
        changed.replace_range(position..=position, other);
        assert_eq!(open_qr_text(&changed), Err(PrintedShareError::DamagedQrText), "{position}");
    }
}

#[test]
fn a_share_with_fields_of_other_sizes_is_not_printed() {
    let refused = |change: fn(&mut PassphraseBox), field| {
        let mut share = alice();
        change(&mut share.shares);
        assert_eq!(to_lines(&share), Err(PrintedShareError::NotPrintable { field }));
    };
    refused(|shares| shares.memory_kib = 1 << 24, "Argon2id memory");
    refused(|shares| shares.pass_count = 256, "number of Argon2id passes");
    refused(|shares| shares.salt.push(0), "salt");
    refused(|shares| shares.nonce.truncate(11), "nonce");
    refused(|shares| shares.ciphertext.push(0), "ciphertext");
}

prop_compose! {
    fn any_share()(
        name in "[a-z0-9][a-z0-9._-]{0,63}",
        cluster_id in any::<[u8; 16]>(),
        numbers in any::<(u32, u8, u8)>(),
        memory_kib in 0_u32..1 << 24,
        is_sm in any::<bool>(),
        secrets in (any::<[u8; 16]>(), any::<[u8; 12]>(), prop::collection::vec(any::<u8>(), 80)),
    ) -> StoredShare {
        let (share_epoch, share_index, pass_count) = numbers;
        let (salt, nonce, ciphertext) = secrets;
        let custodian = CustodianName::parse(&name).expect("valid");
        StoredShare {
            version: VersionOne,
            label: ShareLabel { cluster_id, share_epoch, custodian, share_index },
            shares: PassphraseBox {
                version: VersionOne,
                suite: if is_sm { Suite::Sm } else { Suite::Intl },
                memory_kib,
                pass_count: u32::from(pass_count),
                salt: salt.to_vec(),
                nonce: nonce.to_vec(),
                ciphertext,
            },
        }
    }
}

proptest! {
    #[test]
    fn every_share_comes_back_from_paper(share in any_share()) {
        let compact = to_compact(&share).expect("prints");
        prop_assert!(compact.len() <= 199);
        prop_assert_eq!(open_compact(&compact), Some(share.clone()));
        prop_assert!((0..compact.len()).all(|end| open_compact(&compact[..end]).is_none()));
        let lines = to_lines(&share).expect("prints");
        prop_assert!(lines.len() <= word_lines::LINE_COUNT_MAX);
        prop_assert_eq!(open_words(&text(&lines)), Ok(share.clone()));
        prop_assert_eq!(open_words(&without_numbers(&lines)), Ok(share.clone()));
        prop_assert_eq!(open_qr_text(&to_qr_text(&share).expect("prints")), Ok(share.clone()));
    }

    #[test]
    fn one_wrong_word_anywhere_is_found(share in any_share(), at in any::<prop::sample::Index>(), step in 1_u16..2048) {
        let mut lines = to_lines(&share).expect("prints");
        let places: Vec<(usize, usize)> =
            lines.iter().enumerate().flat_map(|(line, words)| (0..words.len()).map(move |word| (line, word))).collect();
        let (line, word) = places[at.index(places.len())];
        lines[line][word] = Word::new((lines[line][word].number() + step) % 2048).expect("below 2,048");
        let named: Vec<usize> = problems(&text(&lines)).iter().map(line_of).collect();
        prop_assert!(named.contains(&(line + 1)), "{:?}", named);
    }
}
