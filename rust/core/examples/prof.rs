#![allow(missing_docs)]
use std::hint::black_box;
use std::time::Instant;
use uniroute_core::kernels::Kernels;
use uniroute_core::kernels::lexical::{Lexical, Work, run};
use uniroute_core::lexical::fit::FeatureCounter;
use uniroute_core::lexical::{LexicalEmbedder, Scratch, features};
struct Hash<'a>(&'a str);
impl Work for Hash<'_> {
    type Output = u64;
    #[inline(always)]
    fn run<L: Lexical>(self) -> u64 {
        let mut t = features::Tokens::new(self.0);
        let mut h = [0u64; 256];
        let mut s = 0;
        loop {
            let n = t.fill::<L>(&mut h);
            if n == 0 {
                return s;
            }
            s += h[0] + n as u64;
        }
    }
}

struct Ids<'a>(&'a str,&'a mut features::Buffers);
impl Work for Ids<'_> { type Output=u64; #[inline(always)] fn run<L: Lexical>(self)->u64{
  let mut s=0u64; let mut f=features::Features::new(self.0,2,self.1); while let Some(ids)=f.next::<L>() { s+=ids[0] as u64 +ids.len() as u64;} s } }
struct Find<'a>(&'a str,&'a LexicalEmbedder,&'a mut features::Buffers);
impl Work for Find<'_> { type Output=u64; #[inline(always)] fn run<L: Lexical>(self)->u64{
  let mut s=0u64; let v=self.1.vocabulary(); let mut rows=[0u32;768]; let mut f=features::Features::new(self.0,2,self.2); while let Some(ids)=f.next::<L>() { s+=v.find(ids,&mut rows) as u64;} s } }
fn main() {
    let text = std::fs::read_to_string("/tmp/mmlu.txt").unwrap();
    let prompts: Vec<&str> = text.split('\0').collect();
    let dim: usize = std::env::args().nth(1).map_or(64, |v| v.parse().unwrap());
    let rows: usize = std::env::args().nth(2).map_or(16, |v| v.parse().unwrap());
    let mut c = FeatureCounter::new(2).unwrap();
    prompts.iter().for_each(|t| c.add(t));
    let v = c.vocabulary(2, 1 << rows).unwrap();
    let table: Vec<f32> = (0..v.rows() * dim)
        .map(|i| (i % 255) as f32 - 127.0)
        .collect();
    let e = LexicalEmbedder::new(v, 2, &table, dim, serde_json::Value::Null).unwrap();
    let mut sc = Scratch::default();
    let mut out = vec![0.0; dim];
    let time = |name: &str, f: &mut dyn FnMut(&str) -> u64| {
        let mut meds = vec![];
        for _ in 0..9 {
            let t = Instant::now();
            let mut s = 0;
            for p in &prompts {
                s += f(p);
            }
            black_box(s);
            meds.push(t.elapsed().as_nanos() as f64 / prompts.len() as f64);
        }
        meds.sort_by(f64::total_cmp);
        println!("{name:10} min {:.0} ns  median {:.0}", meds[0], meds[4]);
    };
    let k = Kernels::active(); let mut bf=features::Buffers::default();
    time("hash", &mut |p| run(k, Hash(p)));
    time("ids", &mut |p| run(k, Ids(p,&mut bf)));
    time("find", &mut |p| run(k, Find(p, &e, &mut bf)));
    time("embed", &mut |p| {
        let r = e.embed(p, &mut out, &mut sc);
        r.coverage as u64
    });
}
