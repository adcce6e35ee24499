#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rnet_fuzz::beacon(data));
