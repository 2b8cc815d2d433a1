//! TLS as strangers and agents find it: probed by the real openssl, agents' certificates by the real curl.

use std::path::Path;
use std::process::Command;

use super::broker::{Broker, SECRET};

fn run(directory: &Path, program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new("timeout")
        .arg("20")
        .arg(program)
        .args(args)
        .current_dir(directory)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn openssl(directory: &Path, line: &str) -> (bool, String) {
    run(directory, "openssl", &line.split(' ').collect::<Vec<_>>())
}

/// Makes an authority `NAME.pem` and a certificate `NAME-client.pem` that it vouches for.
fn authority(directory: &Path, name: &str) {
    let lines = [
        format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ),
        format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=agent -CA {name}.pem -CAkey {name}.key \
             -addext basicConstraints=CA:FALSE -keyout {name}-client.key -out {name}-client.pem"
        ),
    ];
    for line in lines {
        let (done, said) = openssl(directory, &line);
        assert!(done, "{line}: {said}");
    }
}

#[tokio::test]
async fn old_versions_and_weak_ciphers_are_refused() {
    let broker = Broker::start(&["--tls-self-signed"]).await;
    let here = std::env::temp_dir();
    let probe = |args: &str| {
        let line = format!(
            "s_client -connect {} -servername localhost {args}",
            broker.address
        );
        openssl(&here, &line)
    };
    for good in [
        "-tls1_3",
        "-tls1_2",
        "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256",
        "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305",
    ] {
        let (done, said) = probe(good);
        assert!(
            done && said.contains("Secure Renegotiation IS"),
            "{good}: {said}"
        );
        assert!(said.contains("Compression: NONE"), "{good}: {said}");
    }
    for bad in [
        "-tls1_1 -cipher DEFAULT@SECLEVEL=0",
        "-tls1 -cipher DEFAULT@SECLEVEL=0",
        "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384:AES128-SHA:AES128-GCM-SHA256@SECLEVEL=0",
        "-tls1_2 -cipher aNULL:eNULL:NULL@SECLEVEL=0",
    ] {
        let (done, said) = probe(bad);
        assert!(!done, "{bad}: {said}");
    }
}

#[tokio::test]
async fn agents_show_a_certificate_where_one_is_asked_for_and_browsers_need_none() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    authority(here, "ours");
    authority(here, "theirs");
    let ca = here.join("ours.pem").display().to_string();
    let broker = Broker::start(&["--tls-self-signed", "--tls-client-ca", &ca]).await;
    let url = |path: &str| broker.url(path);
    let body = format!(r#"{{"enroll_secret":"{SECRET}","host_identifier":"pc"}}"#);
    let enroll = |certificate: &[&str]| {
        let url = url("/api/v1/osquery/enroll");
        let args = [&["-sS", "-k", "-d", &body], certificate, &[url.as_str()]].concat();
        run(here, "curl", &args)
    };
    let (done, said) = enroll(&[]);
    assert!(
        done && said.contains("client certificate") && !said.contains("node_invalid"),
        "{said}"
    );
    let (_, said) = enroll(&["--cert", "ours-client.pem", "--key", "ours-client.key"]);
    assert!(said.contains("node_key"), "{said}");
    let (done, said) = enroll(&["--cert", "theirs-client.pem", "--key", "theirs-client.key"]);
    assert!(!done && !said.contains("node_key"), "{said}");
    let (_, said) = run(here, "curl", &["-sS", "-k", &url("/healthz")]);
    assert_eq!(said, "ok\n");
    // The authority is exchanged while running.
    std::fs::copy(here.join("theirs.pem"), here.join("ours.pem")).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(broker.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let (_, said) = enroll(&["--cert", "theirs-client.pem", "--key", "theirs-client.key"]);
        if said.contains("node_key") {
            let (_, said) = enroll(&["--cert", "ours-client.pem", "--key", "ours-client.key"]);
            assert!(!said.contains("node_key"), "{said}");
            return;
        }
    }
    panic!("the new authority is not heard");
}
