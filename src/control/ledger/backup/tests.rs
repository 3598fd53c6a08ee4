//! Backups of files, and what is said of Postgres.

use super::*;

#[test]
fn the_command_for_postgres_has_no_password() {
    for (url, shown) in [
        (
            "postgresql://u:s3cret@db:6543/x?schema=y&sslmode=require",
            "'postgresql://u@db:6543/x?sslmode=require'",
        ),
        ("postgres://u@h/x", "postgres://u@h/x"),
        ("postgresql:///x?host=/run/pg&password=s3cret&user=u", "'postgresql:///x?host=%2Frun%2Fpg&user=u'"),
    ] {
        let told = elsewhere("pg_dump --format=custom --file=", Path::new("it's.dump"), url).to_string();
        assert!(told.ends_with(&format!("pg_dump --format=custom --file='it'\\''s.dump' {shown}")), "{told}");
        let told = elsewhere("pg_restore --clean --if-exists ", Path::new("a.dump"), url).to_string();
        assert!(told.ends_with(&format!("pg_restore --clean --if-exists --dbname={shown} a.dump")), "{told}");
        assert!(!told.contains("s3cret"));
    }
}

#[test]
fn what_is_no_ledger_or_newer_is_refused() {
    let folder = std::env::temp_dir().join(format!("tollgate-backup-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let (file, draft) = (folder.join("ledger.db"), folder.join("draft"));
    let refused =
        |file: &Path| running(async { Ok(copied(file, &draft).await.unwrap_err().to_string()) }).unwrap();
    assert!(
        refused(&folder.join("nobody")).contains("unable to open"),
        "{}",
        refused(&folder.join("nobody"))
    );
    fs::write(&file, "not a database, but long enough to be taken for one that was damaged by somebody")
        .unwrap();
    assert!(refused(&file).contains("file is not a database"));
    fs::write(&file, "").unwrap();
    assert!(refused(&file).contains("it is not a ledger of tollgate"));
    running(async {
        let db = super::super::db::Db::sqlite(&file).await.unwrap();
        db.close().await;
        let mut newer = opened(&file, "rw").await.unwrap();
        newer.execute("UPDATE tollgate_state SET schema_version = 1000").await.unwrap();
        newer.close().await.unwrap();
        Ok(())
    })
    .unwrap();
    assert!(refused(&file).contains("start a newer tollgate"));
    fs::remove_dir_all(folder).unwrap();
}
