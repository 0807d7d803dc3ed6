use super::*;
use kms_core::codec::VersionOne;
use kms_core::id::CustodianName;
use kms_core::passphrase::PassphraseBox;
use kms_core::share::ShareLabel;
use kms_core::suite::Suite;

fn share(name: &str) -> StoredShare {
    StoredShare {
        version: VersionOne,
        label: ShareLabel {
            cluster_id: [7; 16],
            share_epoch: 3,
            custodian: CustodianName::parse(name).expect("valid"),
            share_index: 1,
        },
        shares: PassphraseBox {
            version: VersionOne,
            suite: Suite::Sm,
            memory_kib: 65_536,
            pass_count: 3,
            salt: vec![1; 16],
            nonce: vec![2; 12],
            ciphertext: (0..80).collect(),
        },
    }
}

/// The dark points of an image that consists of rectangles `M{left} {top}h{width}v{height}H{left}V{top}`.
fn scan(svg: &str) -> String {
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let attribute = |name: &str| {
        let rest = svg.split(&format!("{name}=\"")).nth(1).expect("has the attribute");
        number(rest.split('"').next().expect("ends"))
    };
    let (width, height) = (attribute("width"), attribute("height"));
    let mut dark = vec![false; width * height];
    let path = svg.split(" d=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a path");
    for rectangle in path.split('M').skip(1) {
        let parts: Vec<usize> = rectangle.split([' ', 'h', 'v', 'H', 'V']).take(4).map(number).collect();
        let [left, top, wide, high] = parts[..] else { panic!("{rectangle}") };
        for y in top..top + high {
            dark[y * width + left..y * width + left + wide].fill(true);
        }
    }
    let mut image =
        rqrr::PreparedImage::prepare_from_greyscale(
            width,
            height,
            |x, y| {
                if dark[y * width + x] { 0 } else { 255 }
            },
        );
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1, "one code is on the page");
    grids[0].decode().expect("another program reads the code").1
}

#[test]
fn the_code_on_the_page_is_read_by_another_program() {
    for name in ["al", &"x".repeat(64)] {
        let share = share(name);
        let page = page(&share, None, Language::Chinese, UnixMillis(0)).expect("prints");
        let start = page.find("<svg").expect("has an image");
        let text = scan(&page[start..page.find("</svg>").expect("ends")]);
        assert_eq!(printed_share::open_qr_text(&text), Ok(share));
    }
}

#[test]
fn the_words_on_the_page_give_the_share_back() {
    for (language, name) in [(Language::English, "alice"), (Language::Chinese, &"x".repeat(64))] {
        let share = share(name);
        let page = page(&share, None, language, UnixMillis(0)).expect("prints");
        let list = page.split("<ol class=\"words").nth(1).and_then(|rest| rest.split("</ol>").next());
        let list = list.and_then(|list| list.split_once('>')).map(|(_, list)| list);
        // As a browser shows it and a person copies it: items are lines.
        let mut text = list.expect("has a list").to_owned();
        for tag in ["<li>", "</li>", "<span>", "</span>"] {
            text = text.replace(tag, "");
        }
        assert_eq!(printed_share::open_words(&text), Ok(share));
    }
}

#[test]
fn a_page_needs_nothing_from_elsewhere() {
    for language in [Language::English, Language::Chinese] {
        let page = page(&share("alice"), None, language, UnixMillis(0)).expect("prints");
        let without_namespace = page.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<?xml"] {
            assert!(!without_namespace.contains(outside), "{outside}");
        }
    }
}
