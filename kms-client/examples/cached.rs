use kms_client::{CacheLimits, CachingClient, Client, KeyRef, Profile, context};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let profile = Profile::load(std::env::var("KMS_PROFILE")?.as_ref())?;
    let client = Client::builder(&profile).connect().await?;
    let cache = CachingClient::new(client, CacheLimits::default());
    let (key, context) = (KeyRef::parse("payroll")?, context([("table", "salaries")])?);
    for row in ["alice: 7000", "bob: 6500"] {
        let encrypted = cache.encrypt(&key, row.as_bytes(), &context).await?;
        let decrypted = cache.decrypt(&encrypted, &context, None).await?;
        assert_eq!(decrypted.expose(), row.as_bytes());
    }
    println!("{:?}", cache.counts());
    Ok(())
}
