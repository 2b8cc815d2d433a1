//! What `check-config` and a start say of settings that cannot work: each names its flag.

use crate::broker::answerback;

#[test]
fn what_would_fail_at_the_start_is_told_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let garbage = path("garbage.pem");
    std::fs::write(&garbage, "no certificate").expect("written");
    let (missing, nested) = (path("missing.pem"), path("garbage.pem/data"));
    let dead = "redis://user:secret@127.0.0.1:1";
    let given: [(&[&str], &[&str]); 4] = [
        (
            &["--tls-cert", &garbage, "--tls-key", &garbage],
            &["--tls-cert"],
        ),
        (
            &["--tls-cert", &missing, "--tls-key", &missing],
            &["--tls-cert", "missing.pem"],
        ),
        (
            &["--data-dir", &nested],
            &["--data-dir", "garbage.pem is no directory"],
        ),
        (&["--store", dead], &["--store", "redis://127.0.0.1:1"]),
    ];
    let data = path("data");
    for (flags, expected) in given {
        let (code, said) = answerback(
            10,
            &[&["check-config", "--data-dir", &data], flags].concat(),
        );
        let flags_given = flags.contains(&"--data-dir");
        let (code, said) = match flags_given {
            true => answerback(10, &[&["check-config"], flags].concat()),
            false => (code, said),
        };
        assert_eq!(code, Some(2), "{flags:?}: {said}");
        for text in expected {
            assert!(said.contains(text), "{flags:?}: {said}");
        }
        assert!(!said.contains("secret"), "{said}");
        let listen: &[&str] = &["serve", "--listen", "127.0.0.1:0"];
        if flags_given || flags[0] == "--store" {
            let more: &[&str] = if flags_given {
                &[]
            } else {
                &["--data-dir", &data]
            };
            let (code, said) = answerback(10, &[listen, more, flags].concat());
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains(flags[0]), "{said}");
        }
    }
    let (code, said) = answerback(10, &["check-config", "--data-dir", &data]);
    assert_eq!((code, said.trim()), (Some(0), "the settings are right"));
    assert!(!std::path::Path::new(&data).exists(), "nothing is made");
}

#[test]
fn authorities_of_certificates_and_addresses_are_tried_as_well() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (garbage, missing) = (path("garbage.pem"), path("missing.pem"));
    std::fs::write(&garbage, "no certificate").expect("written");
    let authorities =
        |file: &str| ["--tls-self-signed", "--tls-client-ca", file].map(str::to_owned);
    let given: [(Vec<String>, &str); 3] = [
        (authorities(&garbage).to_vec(), "garbage.pem"),
        (authorities(&missing).to_vec(), "missing.pem"),
        (
            ["--metrics-listen", "127.0.0.1:8080"]
                .map(str::to_owned)
                .to_vec(),
            "must be another address than --listen",
        ),
    ];
    for (flags, text) in given {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let base = ["check-config", "--data-dir", &path("data")].map(str::to_owned);
        let base: Vec<&str> = base.iter().map(String::as_str).collect();
        let (code, said) = answerback(10, &[&base[..], &flags].concat());
        assert_eq!(code, Some(2), "{flags:?}: {said}");
        assert!(
            said.contains(flags[flags.len() - 2]) && said.contains(text),
            "{flags:?}: {said}"
        );
    }
}
