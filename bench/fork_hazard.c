/* What forking costs any process that starts threads elsewhere, without Python and without this
   package: see docs/pool.md.

       cc -shared -fPIC -DTLS -o libtls.so bench/fork_hazard.c
       cc -o fork_hazard bench/fork_hazard.c -lpthread -ldl && ./fork_hazard 5000 2

   Two threads start threads that touch thread-local storage of 30 shared objects; the main thread
   forks children that start threads, too, and prints how many died. */
#ifdef TLS
static __thread char room[256];
char *touch(int i) { room[i & 255]++; return room; }
#else
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#define OBJECTS 30
#define THREADS 6
static char *(*touch[OBJECTS])(int);
static void *work(void *at) {
  for (int i = 0; i < OBJECTS; i++) touch[i]((int)(long)at);
  return NULL;
}
static void *churn(void *unused) {
  for (pthread_t t;;)
    if (!pthread_create(&t, NULL, work, unused)) pthread_join(t, NULL);
}
int main(int argc, char **argv) {
  int forks = argc > 1 ? atoi(argv[1]) : 5000, busy = argc > 2 ? atoi(argv[2]) : 2, died = 0;
  for (int i = 0; i < OBJECTS; i++) {
    char copy[64], command[128]; /* the same object under another name is another one */
    snprintf(copy, sizeof copy, "./libtls%d.so", i);
    snprintf(command, sizeof command, "cp libtls.so %s", copy);
    void *object = system(command) ? NULL : dlopen(copy, RTLD_NOW);
    if (!object) return 2;
    touch[i] = (char *(*)(int))dlsym(object, "touch");
    unlink(copy);
  }
  for (pthread_t t; busy > 0; busy--) pthread_create(&t, NULL, churn, NULL);
  for (int n = 0; n < forks; n++) {
    pid_t pid = fork();
    if (pid == 0) {
      pthread_t t[THREADS];
      for (long i = 0; i < THREADS; i++) pthread_create(&t[i], NULL, work, (void *)i);
      for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
      _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    died += status != 0;
  }
  printf("%d of %d children died\n", died, forks);
  fflush(stdout);
  _exit(0);
}
#endif
