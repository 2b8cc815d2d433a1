//! Tests of the checks of settings.

use super::*;

fn faults(raw: Raw) -> Vec<String> {
    check(raw).err().map(|faults| faults.0).unwrap_or_default()
}

#[test]
fn nothing_typed_is_a_loopback_broker_with_the_embedded_store() {
    let settings = check(Raw::default()).unwrap();
    assert_eq!(settings.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(settings.store, StoreUrl::Embedded);
    assert_eq!(settings.rules.unclaimed, Duration::from_secs(60));
}

#[test]
fn every_fault_is_told_with_its_flag() {
    let raw = Raw {
        listen: Some("nonsense".into()),
        store: Some("mysql://x".into()),
        tls_cert: Some("c.pem".into()),
        tls_names: Some(vec!["broker.example".into()]),
        trusted_proxies: Some(vec!["10.0.0.0/8".into(), "ten".into()]),
        fsync: Some("sometimes".into()),
        heartbeat_s: Some(35),
        advertise: Some("10.0.0.1:8080".into()),
        ..Raw::default()
    };
    let told = faults(raw);
    for flag in [
        "--listen",
        "--store",
        "--tls-cert",
        "--tls-names",
        "--trusted-proxies",
        "--fsync",
        "--heartbeat-s",
        "--advertise",
    ] {
        assert_eq!(
            told.iter().filter(|fault| fault.starts_with(flag)).count(),
            1,
            "{flag} in {told:?}"
        );
    }
}

#[test]
fn what_is_set_to_nothing_is_not_set() {
    let raw: Raw = toml::from_str(
        "listen = ''\nstore = ''\nadmin_password = ''\nenroll_secret = ''\norigins = ['', ' ']\ntls_cert = ''\nlog = ''\nnode = ''",
    )
    .unwrap();
    let settings = check(raw).unwrap();
    assert_eq!(settings.presets.enroll_secret, None);
    assert_eq!(settings.presets.admin_password, None);
    assert_eq!((settings.origins, settings.node.name), (None, None));
    assert_eq!(settings.listen, "127.0.0.1:8080".parse().unwrap());
}

#[test]
fn what_would_be_refused_later_is_refused_at_once() {
    let raw: Raw = toml::from_str(
        "admin_email = 'nobody'\nadmin_password = 'short'\nenroll_secret = '  '\napi_token = ' '\nnode = 'a b'\n\
         origins = ['console.example']\nsockjs_url = 'javascript:alert(1)'\nunclaimed_s = 0\nretention_s = 0\n\
         overdue_s = 0\nlive_query_rest_period_s = 0\ntrusted_proxies = ['10.0.0.5', '10.0.0.0/8', 'ten']",
    )
    .unwrap();
    let told = faults(raw);
    for flag in [
        "--admin-email",
        "--admin-password",
        "--enroll-secret",
        "--api-token",
        "--node",
        "--origins",
        "--sockjs-url",
        "--unclaimed-s",
        "--retention-s",
        "--overdue-s",
        "--live-query-rest-period-s",
        "--trusted-proxies",
    ] {
        let count = told
            .iter()
            .filter(|fault| fault.starts_with(&format!("{flag}:")))
            .count();
        assert_eq!(count, 1, "{flag} in {told:?}");
    }
}

#[test]
fn a_store_is_embedded_or_redis_or_valkey() {
    for url in [
        "redis://a",
        "rediss+cluster://a,b",
        "valkeys+sentinel://a/m",
    ] {
        assert_eq!(store_url(url), Ok(StoreUrl::Redis(url.to_owned())));
    }
    for url in ["redis", "redis+x://a", "mysql://a", "redisx://a", ""] {
        assert!(store_url(url).is_err(), "{url}");
    }
}

#[test]
fn plain_http_beyond_loopback_must_be_asked_for() {
    let open = Raw {
        listen: Some("0.0.0.0:80".into()),
        ..Raw::default()
    };
    assert_eq!(faults(open.clone()).len(), 1);
    assert!(
        faults(Raw {
            insecure_http: Some(true),
            ..open.clone()
        })
        .is_empty()
    );
    assert!(
        faults(Raw {
            tls_self_signed: Some(true),
            ..open
        })
        .is_empty()
    );
}

#[test]
fn flags_win_over_the_file_and_the_file_knows_no_other_words() {
    let file: Raw = toml::from_str("listen = \"127.0.0.1:1\"\nlog_mib = 7\n").unwrap();
    let typed = Raw {
        listen: Some("127.0.0.1:2".into()),
        ..Raw::default()
    };
    let settings = check(typed.or(file)).unwrap();
    assert_eq!(
        (settings.listen.port(), settings.log_bytes_max),
        (2, 7 << 20)
    );
    assert!(toml::from_str::<Raw>("lisen = 1").is_err());
}
